"""What the scan makes of the records of directories: levels, products, versions, findings."""
