#!/bin/sh
# An old program: no _meta, so each host is asked for.
case $1 in
--list) echo '{"web": ["w1", "w2"], "db": {"hosts": ["d1"], "vars": {"x": 1.50}, "children": ["sub"]}, "sub": {"hosts": []}, "single": {"ansible_host": "192.0.2.9"}}' ;;
--host) echo "{\"me\": \"$2\", \"n\": 1}" ;;
esac
