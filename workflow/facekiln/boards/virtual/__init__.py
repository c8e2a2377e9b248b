"""Virtual boards: an SSH server of this machine whose vendor tools are stand-ins that execute the artifact.

What such a board measures is the time of a simulation on this machine, and says so wherever it is shown. It
is there to try the whole path (upload, lease, run, log, record) without hardware.
"""
