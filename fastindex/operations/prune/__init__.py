"""Withdraw versions, and delete them once no client can know them any more."""
