# Words of vmtest's command line.
{ lib }:
rec {
  # a word; a path goes to the store first, so that the build may read it
  word = value: if builtins.isPath value then "${value}" else toString value;
  # a path in an option of the form SRC:DEST
  colon = path: lib.replaceStrings [ "\\" ":" ] [ "\\\\" "\\:" ] (toString path);
  # the option with SRC:DEST for each { DEST = SRC; }
  pairs =
    option: set:
    lib.concatLists (
      lib.mapAttrsToList (dest: src: [
        option
        "${colon "${src}"}:${colon dest}"
      ]) set
    );
}
