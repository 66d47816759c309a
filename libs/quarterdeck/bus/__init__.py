"""The bus: the connection, the streams as code, asks and their answers, artifacts, the embedded server."""
