"""After the message store was exchanged: no reader begins beyond the end of a log.

The directory keeps from which entry on each member of a group, and each account, may read. In another message
store the logs may be shorter. What comes next in them is for everybody who may read there.
"""

from broker.domain.conversation import group_id
from broker.domain.topics import inbox_topic
from broker.ports import Directory, MessageLog

_PAGE = 500


async def lower_floors(log: MessageLog, directory: Directory) -> None:
    """Lower each floor that is beyond its log to the log's head. Raises `StoreError`."""
    after = ""
    while groups := await directory.groups(after, _PAGE):
        after = groups[-1].group_id
        heads = await log.heads([group_id(group.group_id) for group in groups])
        await directory.lower_floors({each.group_id: heads[group_id(each.group_id)] for each in groups}, {})
    after = ""
    while accounts := await directory.accounts(after, _PAGE):
        after = accounts[-1].user_id
        heads = await log.heads([inbox_topic(account.user_id) for account in accounts])
        await directory.lower_floors(
            {}, {each.user_id: heads[inbox_topic(each.user_id)] for each in accounts}
        )
