"""The vault's outside: its key ring, its encryption, and the store of encrypted records."""
