"""Drivers behind `services.sandbox.ports`.

choose      which driver this machine gets
runtime     the root filesystem that every driver shows, and the checks of a spec against it
bubblewrap  the driver without a daemon; launcher is its program, cgroups and memory measure and bound it
docker      the driver over a Docker daemon; relay is the program of its sidecar
seccomp     the system calls that are refused inside, in both drivers' formats
output      stdout and stderr, bounded
lifetime    the clock, the limits watched from outside, the way to an end
"""
