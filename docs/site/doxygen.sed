# Plain comments of the headers as doxygen reads them; the headers stay free of its commands.

# The two or three lines at the top are the file's.
1,/^#ifndef/ {
  1s|^/\* |/** \\file\n * |
  1s|^// |/// \\file\n/// |
  s|^// |/// |
}

# A heading of c_api.h begins a group, which is named for it, and ends the one before.
/^\/\* ---.*---/ {
  s|^/\* -* \(.*[^ -]\) -* \*/$|\1|
  h
  y/ABCDEFGHIJKLMNOPQRSTUVWXYZ/abcdefghijklmnopqrstuvwxyz/
  s/[^a-z]\+/_/g
  G
  s|^\(.*\)\n\(.*\)$|/** \\defgroup c_\1 \2\n * \\{ */|
  /c_status /!s|^|/** \\} */\n|
}
/^#ifdef __cplusplus$/ {
  n
  s|^}$|/** \\} */\n&|
}
# Declared only: these belong to others.
s|^\(struct [A-Za-z_]*;\).*|\1|

# Nothing private belongs to the reference.
/^ private:$/,/^};$/ {
  /^};$/!d
}

# A comment above, and one at the end of a line.
s|^\( *\)/\* |\1/** |
s|^\(.*[^ ].*[^ ]\)  *\/\* |\1 /**< |
