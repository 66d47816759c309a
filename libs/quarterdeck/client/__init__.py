"""What a publisher of missions imports: `from quarterdeck.client import Client`.

async with Client.open(workspace="demo", actor="user:ada") as client:
    reply = await client.submit(SubmitMission(crew="analysts", goal="Profile the file", inputs=(...,)))
    async for recorded in client.follow(reply.mission_id):
        print(recorded.type.type, recorded.event)
"""

from quarterdeck.client.client import Client

__all__ = ["Client"]
