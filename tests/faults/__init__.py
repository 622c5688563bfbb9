"""The promises about faults, row by row: real servers are killed, stopped and restarted, real processes fork and
end."""
