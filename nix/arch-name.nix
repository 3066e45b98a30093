# Our name of an architecture, from any name that --arch takes; or what is wrong, in words.
{ lib, arches }:
what: name:
let
  isName = arch: row: name == arch || lib.elem name row.aliases;
  found = lib.filter (arch: isName arch arches.${arch}) (lib.attrNames arches);
in
if found != [ ] then
  lib.head found
else
  throw "${what}: unknown architecture `${toString name}`; there are ${lib.concatStringsSep ", " (lib.attrNames arches)}"
