"""The units with which systemd runs ``fastindex nightly``: made from a configuration, installed."""
