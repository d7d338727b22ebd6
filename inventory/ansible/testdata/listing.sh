#!/bin/sh
exec cat "${0%/*}/listing.json"
