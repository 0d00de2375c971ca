#!/bin/sh
# Fetch the chart library of the HTML pages anew. For another version: set it and its hash here, and
# the same two in edgecompress/report/html/page.py.
set -eu
version=6.1.0
sha256=b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0

target=$(cd "$(dirname "$0")/.." && pwd)/edgecompress/report/html/echarts
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "echarts@$version" >/dev/null
tar xzf "echarts-$version.tgz"
echo "$sha256  package/dist/echarts.min.js" | sha256sum --check --quiet
cp package/dist/echarts.min.js package/LICENSE package/NOTICE package/licenses/LICENSE-d3 "$target"
