"""What a running stack tells of itself, and to whom.

events.py   to people, or to a program that reads JSON: beside the lines that containers write
journal.py  the same to the systemd journal, with their fields
systemd.py  to systemd as the manager of a service: ready, reloading, stopping, alive
metrics.py  to Prometheus
"""
