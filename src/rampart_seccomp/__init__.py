"""Rampart: a firewall for AI agents at the system-call boundary."""
