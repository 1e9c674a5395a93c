"""What an iDRAC says of a host's power and temperatures, over Redfish. Pure functions over its answers.

DMTF's schemas Power.v1 and Thermal.v1, which iDRAC 8, 9 and 10 answer below /redfish/v1/Chassis/System.Embedded.1. The
metrics have the names and labels of mrlhansen/idrac_exporter, so that a site that runs it can have Prometheus read that
one instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .exposition import Sample

HELP = {
    "idrac_exporter_up": "1 if the iDRAC answered.",
    "idrac_power_control_consumed_watts": "Power that the whole host takes.",
    "idrac_power_control_capacity_watts": "Power that its supplies can give.",
    "idrac_power_control_avg_consumed_watts": "Mean power in the iDRAC's interval.",
    "idrac_power_supply_input_watts": "Power that a supply takes.",
    "idrac_power_supply_output_watts": "Power that a supply gives.",
    "idrac_power_supply_health": "Health of a supply: 0 is OK, 1 a warning, 2 critical.",
    "idrac_sensors_temperature": "Temperature at a sensor.",
    "idrac_sensors_fan_speed": "Speed of a fan.",
}
HEALTH = {"OK": 0, "Warning": 1, "Critical": 2}


def power(host: str, answer: Mapping[str, Any]) -> Iterator[Sample]:
    """Of the resource Power."""
    for number, control in enumerate(answer.get("PowerControl", ())):
        labels = {"host": host, "id": str(number), "name": str(control.get("Name") or "")}
        mean = (control.get("PowerMetrics") or {}).get("AverageConsumedWatts")
        yield from _value("idrac_power_control_consumed_watts", control.get("PowerConsumedWatts"), labels)
        yield from _value("idrac_power_control_capacity_watts", control.get("PowerCapacityWatts"), labels)
        yield from _value("idrac_power_control_avg_consumed_watts", mean, labels)
    for number, supply in enumerate(answer.get("PowerSupplies", ())):
        labels = {"host": host, "id": str(number)}
        output = supply.get("PowerOutputWatts", supply.get("LastPowerOutputWatts"))
        yield from _value("idrac_power_supply_input_watts", supply.get("PowerInputWatts"), labels)
        yield from _value("idrac_power_supply_output_watts", output, labels)
        yield from _value(
            "idrac_power_supply_health", HEALTH.get(str((supply.get("Status") or {}).get("Health"))), labels
        )


def thermal(host: str, answer: Mapping[str, Any]) -> Iterator[Sample]:
    """Of the resource Thermal."""
    for number, sensor in enumerate(answer.get("Temperatures", ())):
        labels = {"host": host, "id": str(number), "name": str(sensor.get("Name") or ""), "units": "celsius"}
        yield from _value("idrac_sensors_temperature", sensor.get("ReadingCelsius"), labels)
    for number, fan in enumerate(answer.get("Fans", ())):
        units = {"RPM": "rpm", "Percent": "percent"}.get(fan.get("ReadingUnits", "RPM"), "rpm")
        labels = {"host": host, "id": str(number), "name": str(fan.get("Name") or fan.get("FanName") or "")}
        yield from _value("idrac_sensors_fan_speed", fan.get("Reading"), {**labels, "units": units})


def chassis(answer: Mapping[str, Any]) -> str:
    """Of the collection of chassis the one that is the host: the embedded one where there are several."""
    members = [str(member["@odata.id"]) for member in answer.get("Members", ())]
    return next((path for path in members if "Embedded" in path), members[0] if members else "")


def _value(name: str, value: object, labels: Mapping[str, str]) -> Iterator[Sample]:
    """Nothing where the iDRAC has no such value: a supply that is unplugged answers null."""
    if isinstance(value, int | float):
        yield Sample(name, float(value), labels)
