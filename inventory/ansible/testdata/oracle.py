"""Asks Ansible itself what inventories, limits and scalars mean.

Reads one JSON request from standard input, writes one JSON answer. It runs in
the interpreter of the installed ansible-inventory, with that program's own code.
"""
import json
import sys
import traceback

from ansible import context
from ansible.cli.inventory import InventoryCLI
from ansible.errors import AnsibleError
from ansible.inventory.manager import split_host_pattern
from ansible.parsing.ajson import AnsibleJSONEncoder
from ansible.parsing.utils.addresses import parse_address
from ansible.parsing.utils.yaml import from_yaml
from ansible.plugins.inventory import expand_hostname_range
from ansible.plugins.inventory.ini import InventoryModule as INI
from ansible.utils.context_objects import CLIArgs
from ansible.utils.shlex import shlex_split

# The program keeps its first command line for good; here there are several.
context._init_global_context = lambda options: setattr(context, "CLIARGS", CLIArgs.from_options(options))


def encode(value):
    text = json.dumps(value, cls=AnsibleJSONEncoder, preprocess_unsafe=True)
    return json.loads(text, parse_constant={"Infinity": ".inf", "-Infinity": "-.inf", "NaN": ".nan"}.get)


def attempt(function, *args):
    try:
        return {"value": encode(function(*args))}
    except BaseException as e:  # whatever goes wrong is the answer
        traceback.print_exc()
        return {"error": "%s: %s" % (type(e).__name__, e)}


def hosts_of(inventory, limit):
    inventory.subset(limit)
    try:
        return [h.name for h in inventory.get_hosts("all")]
    finally:
        inventory.subset(None)


def case(sources, limits):
    args = ["ansible-inventory", "--list", "--export"]
    for s in sources:
        args += ["-i", s]
    cli = InventoryCLI(args)
    cli.parse()
    cli.loader, cli.inventory, cli.vm = cli._play_prereqs()
    listing = cli.json_inventory(cli._get_group("all"))
    merged = {
        h.name: cli._remove_internal(cli.vm.get_vars(host=h, include_hostvars=False, stage="all"))
        for h in cli.inventory.get_hosts()
    }
    return {
        "listing": encode(listing),
        "merged": encode(merged),
        "groups": {h.name: sorted(g.name for g in h.get_groups() if g.name != "all") for h in cli.inventory.get_hosts()},
        "depth": {g.name: g.depth for g in cli.inventory.groups.values()},
        "limits": [attempt(hosts_of, cli.inventory, p) for p in limits],
    }


def address(text):
    host, port = parse_address(text, allow_ranges=True)
    return [host, port or 0]


request = json.load(sys.stdin)
answer = {
    "cases": [attempt(case, c["sources"], c["limits"] or []) for c in request.get("cases") or []],
    "literals": [attempt(INI._parse_value, v) for v in request.get("literals") or []],
    "yaml": [attempt(from_yaml, v) for v in request.get("yaml") or []],
    "words": [attempt(shlex_split, v, True) for v in request.get("words") or []],
    "addresses": [attempt(address, v) for v in request.get("addresses") or []],
    "ranges": [attempt(expand_hostname_range, v) for v in request.get("ranges") or []],
    "patterns": [attempt(split_host_pattern, v) for v in request.get("patterns") or []],
}
json.dump(answer, sys.stdout)
