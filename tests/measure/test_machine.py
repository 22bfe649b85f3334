import json

from laconic.measure.machine import cpu_model, machine


def test_the_machine_has_no_names_or_paths():
    import getpass
    import socket

    said = json.dumps(machine())
    assert socket.gethostname() not in said and "/" not in machine()["cpu"]
    assert getpass.getuser() not in said
    assert cpu_model()
