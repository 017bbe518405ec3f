"""What a reader says where it refuses."""
import pytest

from dance_deploy.errors import InputError


def refused(function, *arguments, **options):
    """The line of the refusal, after checking that it is one."""
    with pytest.raises(InputError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
