# Words of vmtest's command line.
{ lib }:
rec {
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
