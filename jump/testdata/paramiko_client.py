"""Does with Paramiko what the arguments say: PORT LOGIN HOME NAME WAY TASK THERE.

HOME holds known_keys, the key id and its certificate. The socket is made here
since Paramiko looks host keys up by the name that it is given, not by address.

The certificate is named, although the agent has it too: of an agent Paramiko
tries all keys in turn, and asks for the service ssh-userauth anew before each,
which servers of golang.org/x/crypto take for an error once a key was refused.
"""

import socket
import sys

import paramiko
from paramiko.agent import AgentRequestHandler


class Named(paramiko.SSHClient):
    def session(self):
        chan = self.get_transport().open_session()
        AgentRequestHandler(chan)
        return chan


def connect(sock, name, login, home):
    client = Named()
    client.load_host_keys(home + "/known_keys")
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        name, 22, username=login, sock=sock, key_filename=home + "/id-cert.pub",
        allow_agent=False, look_for_keys=False,
    )
    return client


def run(client):
    chan = client.session()
    chan.exec_command("cat; echo err >&2; exit 7")
    chan.sendall(b"in\x00\xff")
    chan.shutdown_write()
    print(chan.makefile("rb").read(), chan.makefile_stderr("rb").read(), chan.recv_exit_status())


def files(client, there):
    chan = client.session()
    chan.invoke_subsystem("sftp")
    sftp = paramiko.SFTPClient(chan)
    sftp.put("tree/large", there + "/large")
    sftp.chmod(there + "/large", 0o640)
    sftp.get(there + "/large", "back")
    sftp.mkdir(there + "/made", 0o700)
    sftp.posix_rename(there + "/large", there + "/made/large")
    with sftp.open(there + "/made/large", "r+") as f:
        f.seek(100)
        f.write(b"in the middle")
        print(f.stat().st_size)
    print(sorted(sftp.listdir(there)))
    try:
        sftp.stat(there + "/nothing")
    except FileNotFoundError as e:
        print(e)


def main():
    port, login, home, name, way, task, there = sys.argv[1:]
    sock = socket.create_connection(("127.0.0.1", int(port)))
    outer = None
    if way == "subsystem":
        outer = connect(sock, "jump.example.com", login, home)
        sock = outer.session()
        sock.invoke_subsystem("proxy:" + name)
    if way == "jump":
        outer = connect(sock, "jump.example.com", login, home)
        sock = outer.get_transport().open_channel("direct-tcpip", (name, 0), ("127.0.0.1", 0))
    if way == "login":
        login += "%" + name
        name = "jump.example.com"
    client = connect(sock, name, login, home)
    if task == "run":
        run(client)
    else:
        files(client, there)
    client.close()
    if outer:
        outer.close()


main()
