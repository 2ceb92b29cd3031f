"""Snapferry."""
