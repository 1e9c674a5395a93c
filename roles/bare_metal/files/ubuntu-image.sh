# ubuntu-image.sh SOURCE RESULT: Ubuntu's image, with the words on the kernel's command line that let it begin by itself and
# end without asking that the medium is taken out.
source=$1 result=$2
command -v xorriso >/dev/null || { echo "xorriso is not installed on the controller: install it (apt-get install xorriso)" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder" "$result.part"' EXIT
xorriso -osirrox on -indev "$source" -extract /boot/grub/grub.cfg "$folder/grub.cfg" 2>/dev/null
chmod u+w "$folder/grub.cfg"
sed -i -E '/^\s*linux\s/ s/\s---/ autoinstall noprompt ---/' "$folder/grub.cfg"
grep -q ' autoinstall ' "$folder/grub.cfg" || { echo "$source: its grub.cfg starts no kernel as Ubuntu's does" >&2; exit 1; }
xorriso -indev "$source" -outdev "$result.part" -map "$folder/grub.cfg" /boot/grub/grub.cfg -boot_image any replay 2>/dev/null
mv "$result.part" "$result"
