# Sourced by every benchmark: collects what was measured and prints it, as a table or with --json as JSON.
#
#   report_begin NAME "$@"            takes the benchmark's own command line
#   report_value NAME VALUE UNIT [BUDGET [most|least [LOW HIGH]]]   a number, the budget it is held against,
#                                     and the quartiles of what it is the median of
#   report_note TEXT                  what a reader of the numbers needs to know
#   report_skip NAME REASON           what could not be measured, and why
#   report_end
report_json=''

report_begin() {
  report_name=$1
  shift
  for argument; do
    case $argument in
      --json) report_json=yes ;;
      *) usage_error "bench $report_name: unknown option '$argument'" ;;
    esac
  done
  report_rows=$(mktemp)
  trap 'rm -f "$report_rows"' EXIT
}

report_value() {
  printf 'value\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${4:-}" "${5:-most}" "${6:-}" "${7:-}" >> "$report_rows"
}
report_note() { printf 'note\t%s\n' "$*" >> "$report_rows"; }
report_skip() { printf 'skip\t%s\t%s\n' "$1" "$2" >> "$report_rows"; }

# awk: met and the distance from the budget in percent, from fields 3, 5 and 6 of a value.
report_judge='
  function met() { return $6 == "least" ? $3 >= $5 : $3 <= $5 }
  function distance() { return $5 == 0 ? 0 : ($3 > $5 ? $3 - $5 : $5 - $3) * 100 / $5 }
'

report_table() {
  awk -F '\t' -v name="$report_name" "$report_judge"'
    BEGIN { printf "%-58s %10s %-4s %-13s %10s  %s\n", "bench " name, "measured", "", "quartiles", "budget", "verdict" }
    $1 == "value" {
      budget = verdict = ""
      spread = $7 == "" ? "" : $7 " to " $8
      if ($5 != "") {
        budget = ($6 == "least" ? ">= " : "<= ") $5
        verdict = met() ? "met" : sprintf("NOT met, by %.0f %%", distance())
      }
      printf "%-58s %10s %-4s %-13s %10s  %s\n", $2, $3, $4, spread, budget, verdict
    }
    $1 == "skip" { printf "%-58s %10s %-4s %-13s %10s  not measured: %s\n", $2, "-", "", "", "", $3 }
    $1 == "note" { notes = notes "  " $2 "\n" }
    END { printf "%s", notes }
  ' "$report_rows"
}

report_as_json() {
  awk -F '\t' -v name="$report_name" "$report_judge"'
    function text(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" s "\"" }
    function add(list, item) { return list (list == "" ? "" : ",") item }
    $1 == "value" {
      item = "{\"name\":" text($2) ",\"value\":" $3 ",\"unit\":" text($4)
      if ($5 != "") {
        item = item ",\"budget\":" $5 ",\"bound\":" text("at " $6) ",\"met\":" (met() ? "true" : "false")
      }
      if ($7 != "") item = item ",\"quartiles\":[" $7 "," $8 "]"
      values = add(values, item "}")
    }
    $1 == "skip" { skips = add(skips, "{\"name\":" text($2) ",\"reason\":" text($3) "}") }
    $1 == "note" { notes = add(notes, text($2)) }
    END {
      printf "{\"benchmark\":%s,\"results\":[%s],\"not_measured\":[%s],\"notes\":[%s]}\n",
        text(name), values, skips, notes
    }
  ' "$report_rows"
}

report_end() { if [ -n "$report_json" ]; then report_as_json; else report_table; fi; }

# field KEY: the number of a key in the flat JSON on standard input.
field() { sed -nE "s/.*\"$1\":(-?[0-9.]+).*/\1/p"; }

# median: of the numbers on standard input, a line each; of an even count, the upper one.
median() { sort -g | awk '{ value[NR] = $1 } END { if (NR) print value[int(NR / 2) + 1] }'; }

# ratio A B: A / B with two decimals.
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", a / b }'; }
