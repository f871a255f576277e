"""How long a lease on a job lasts, and how often a worker renews its leases.

A lease is an execution of RQ (`jobs/queue/rq_adapter.py`). Redis expires it unless its worker renews it. The videos of
a worker that died are queued again after a lease, a beat and another beat: within 30 seconds.
"""

LEASE_SECONDS = 15
BEAT_SECONDS = 4.0
