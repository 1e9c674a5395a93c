"""What every room uses: records, files, processes, systemd, progress. It knows of no stage."""
