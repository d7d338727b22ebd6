#!/bin/sh
if [ "$1" = --list ]; then
  echo '{"web": {"hosts": ["a4", "a1"], "vars": {"from": "script"}}, "_meta": {"hostvars": {"a4": {"x": "script"}, "a1": {"x": "script too"}, "nobody": {}}}}'
fi
