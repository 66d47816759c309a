"""What tests are written with: given/when/then, conformance suites, a throw-away nats-server."""
