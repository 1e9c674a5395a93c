"""Names of the network adapters that PowerEdge servers are sold with, by PCI id (from pci.ids)."""

from __future__ import annotations

NICS: dict[str, str] = {
    "15b3:1013": "Mellanox ConnectX-4",
    "15b3:1015": "Mellanox ConnectX-4 Lx",
    "15b3:1017": "Mellanox ConnectX-5",
    "15b3:1019": "Mellanox ConnectX-5 Ex",
    "15b3:101b": "NVIDIA ConnectX-6",
    "15b3:101d": "NVIDIA ConnectX-6 Dx",
    "15b3:101f": "NVIDIA ConnectX-6 Lx",
    "15b3:1021": "NVIDIA ConnectX-7",
    "15b3:1023": "NVIDIA ConnectX-8",
    "15b3:a2d6": "NVIDIA BlueField-2",
    "15b3:a2dc": "NVIDIA BlueField-3",
    "14e4:165f": "Broadcom BCM5720",
    "14e4:16d7": "Broadcom BCM57414",
    "14e4:16d8": "Broadcom BCM57416",
    "14e4:1750": "Broadcom BCM57508",
    "14e4:1751": "Broadcom BCM57504",
    "8086:1521": "Intel I350",
    "8086:1533": "Intel I210",
    "8086:1563": "Intel X550",
    "8086:1572": "Intel X710",
    "8086:158b": "Intel XXV710",
    "8086:1592": "Intel E810-C",
    "8086:1593": "Intel E810-C",
    "8086:159b": "Intel E810-XXV",
}
