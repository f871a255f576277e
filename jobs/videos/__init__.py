"""The records of videos, their events and their webhooks."""
