"""Reports to the dispatcher which requests take part in the passes under way."""

from collections.abc import Collection

from worker.messages import DispatcherMessage, Inbox, PassChanged


class PassReports:
    """Posts the members of the passes when they change, before the device starts. For one thread."""

    def __init__(self, dispatcher: Inbox[DispatcherMessage]) -> None:
        self._dispatcher = dispatcher
        self._members: frozenset[str] = frozenset()

    def __call__(self, request_ids: Collection[str]) -> None:
        members = frozenset(request_ids)
        if members != self._members:
            self._members = members
            self._dispatcher.post(PassChanged(members))
