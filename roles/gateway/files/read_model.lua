-- The model that a JSON body names, as an engine reads it: only at the top level, the last one if there are several, its
-- escapes decoded. All of the body is read, so that nothing that an engine would refuse is passed on to one.
local find, byte, sub, gsub, char = string.find, string.byte, string.sub, string.gsub, utf8.char

local DEEPEST = 900 -- levels; Python's reader ends at about a thousand
local DIGITS = 4300 -- of an integer; Python refuses longer ones
local SPACE, QUOTE, BACKSLASH, COMMA, COLON = byte(" "), byte('"'), byte("\\"), byte(","), byte(":")
local ARRAY = byte("[")
local OPENS = {[byte("{")] = byte("}"), [byte("[")] = byte("]")}
local CLOSES_OBJECT = byte("}")
local NAMES = {["true"] = "a boolean", ["false"] = "a boolean", ["null"] = "null", NaN = "a number", Infinity = "a number"}
local ESCAPES = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

-- The first character from `at` on that is no space, and where it is.
local function skip(body, at)
  local found = byte(body, at)
  if found == SPACE then
    at = at + 1
    found = byte(body, at)
  end
  if found and found <= SPACE then
    local _, last = find(body, "^[ \t\r\n]*", at)
    at = last + 1
    found = byte(body, at)
  end
  return at, found
end

-- The closing quote of the string that opens at `at`, and whether there are escapes in it; or nil, and where it is wrong.
local function string_end(body, at)
  local _, last = find(body, '^[^\0-\31"\\]*', at + 1)
  if byte(body, last + 1) == QUOTE then return last + 1, false end
  while byte(body, last + 1) == BACKSLASH do
    local at, stop = find(body, '^\\u%x%x%x%x[^\0-\31"\\]*', last + 1)
    if not at then at, stop = find(body, '^\\["\\/bfnrt][^\0-\31"\\]*', last + 1) end
    if not at then return nil, last + 1 end
    last = stop
  end
  if byte(body, last + 1) == QUOTE then return last + 1, true end
  return nil, last + 1
end

local function decoded(text)
  text = gsub(text, "\\(.)(%x?%x?%x?%x?)", function(kind, code)
    if kind == "u" then return char(tonumber(code, 16)) end
    return (ESCAPES[kind] or kind) .. code
  end)
  -- Halves of a surrogate pair, three bytes each.
  return (gsub(text, "\xED([\xA0-\xAF])([\x80-\xBF])\xED([\xB0-\xBF])([\x80-\xBF])", function(a, b, c, d)
    local high, low = (byte(a) & 0x0F) << 6 | byte(b) & 0x3F, (byte(c) & 0x0F) << 6 | byte(d) & 0x3F
    return char(0x10000 + (high << 10) + low)
  end))
end

-- Where the number or name that starts at `at` ends, and what it is.
local function scalar_end(body, at)
  local number, stop = find(body, "^-?[1-9]%d*", at)
  if not number then number, stop = find(body, "^-?0", at) end
  if not number then
    local name = string.match(body, "^%a+", at)
    if name and NAMES[name] then return at + #name - 1, NAMES[name] end
    if find(body, "^-Infinity", at) then return at + 8, "a number" end
    return nil
  end
  local whole, _, last = stop, nil, nil
  if find(body, "^[.eE]", stop + 1) then
    _, last = find(body, "^%.%d+", stop + 1)
    stop = last or stop
    _, last = find(body, "^[eE][+-]?%d+", stop + 1)
    stop = last or stop
    if stop > whole then return stop, "a number" end
  end
  if stop - at >= DIGITS then return nil end
  return stop, "an integer"
end

-- Returns the model. Otherwise nil and the reason: "json" and the number of the byte that is wrong, "deep", "type" and
-- what was found in place of a string, or "missing".
local function read_model(body)
  local valid, wrong = utf8.len(body)
  -- Lua 5.3 takes halves of surrogate pairs for UTF-8.
  if valid and find(body, "\xED", 1, true) then wrong = find(body, "\xED[\xA0-\xBF]") end
  if wrong then return nil, "json", wrong end
  local closing, depth, at, found = {0, 0, 0, 0}, 0, 1, nil
  local is_model, model, kind, stop, escaped, name = false, nil, nil, nil, nil, nil

  ::value::
  at, found = skip(body, at)
  if OPENS[found] then
    if is_model then model, kind = nil, found == ARRAY and "an array" or "an object" end
    depth = depth + 1
    if depth > DEEPEST then return nil, "deep" end
    closing[depth] = OPENS[found]
    at, found = skip(body, at + 1)
    if found == closing[depth] then goto closed end
    is_model = false
    if closing[depth] == CLOSES_OBJECT then goto key end
    goto value
  elseif found == QUOTE then
    stop, escaped = string_end(body, at)
    if not stop then return nil, "json", escaped end
    if is_model then model, kind = sub(body, at + 1, stop - 1), escaped and "escaped" or "string" end
  else
    stop, found = scalar_end(body, at)
    if not stop then return nil, "json", at end
    if is_model then model, kind = nil, found end
  end
  at = stop + 1

  ::after::
  at, found = skip(body, at)
  if depth == 0 then
    if found then return nil, "json", at end
    if model then return kind == "escaped" and decoded(model) or model end
    if kind then return nil, "type", kind end
    return nil, "missing"
  elseif found == COMMA then
    is_model = false
    at, found = skip(body, at + 1)
    if closing[depth] == CLOSES_OBJECT then goto key end
    goto value
  elseif found ~= closing[depth] then
    return nil, "json", at
  end

  ::closed::
  depth, at = depth - 1, at + 1
  goto after

  ::key::
  -- Most keys are plain, with a space or none around the colon.
  found, stop, name = find(body, '^"([^\0-\31"\\]*)" ?: ?', at)
  if found then
    is_model = depth == 1 and name == "model"
    at = stop + 1
    goto value
  end
  if byte(body, at) ~= QUOTE then return nil, "json", at end
  stop, escaped = string_end(body, at)
  if not stop then return nil, "json", escaped end
  if depth == 1 then
    name = sub(body, at + 1, stop - 1)
    is_model = (escaped and #name <= 30 and decoded(name) or name) == "model"
  end
  at, found = skip(body, stop + 1)
  if found ~= COLON then return nil, "json", at end
  at = at + 1
  goto value
end
return read_model
