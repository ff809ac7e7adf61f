"""What `messages.send` and `messages.edit` accept as content."""

import pytest

from bridge.core.operations import content_json
from broker.domain.errors import RefusedError
from broker.domain.json_limits import MAX_DIGITS


def test_an_edit_has_no_number_that_a_message_may_not_have() -> None:
    longest = 10**MAX_DIGITS - 1
    assert content_json([longest]) == b"[%d]" % longest
    with pytest.raises(RefusedError, match=f"data: a number of more than {MAX_DIGITS} digits") as refused:
        content_json({"a": longest + 1}, "data")
    assert refused.value.code == "invalid_params"
