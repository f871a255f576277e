"""The queue protocol: enqueue, claim, lease, release, requeue, recover; fair share, cost, ETA and admission."""
