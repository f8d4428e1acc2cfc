# Sourced: which of our sources there are.

# all_sources: every C++ file, tracked or new.
all_sources() {
  git -C "$root" ls-files --cached --others --exclude-standard -- '*.cc' '*.h' |
    while read -r file; do [ ! -e "$root/$file" ] || echo "$file"; done
}

# changed_sources: those that differ from what has been published, or, when nothing does, that the last
# commit changed.
changed_sources() {
  local base
  base=$(git -C "$root" merge-base HEAD origin/HEAD 2>/dev/null || git -C "$root" merge-base HEAD origin/main 2>/dev/null || true)
  if [ -z "$base" ] || [ "$base" = "$(git -C "$root" rev-parse HEAD)" ]; then
    base=$(git -C "$root" rev-parse --verify -q HEAD~1 || git -C "$root" hash-object -t tree /dev/null)
  fi
  { git -C "$root" diff --name-only "$base" -- '*.cc' '*.h'
    git -C "$root" ls-files --others --exclude-standard -- '*.cc' '*.h'; } | sort -u |
    while read -r file; do [ ! -e "$root/$file" ] || echo "$file"; done
}
