# Sourced: counts what test runners left behind.
#
# A results folder holds GoogleTest's XML, one file per test program, and ctest.xml, ctest's JUnit.

# For awk: the value of an attribute of the element on this line.
xml_attribute='
  function attribute(name,   rest) {
    if (!match($0, " " name "=\"[^\"]*\"")) return ""
    rest = substr($0, RSTART, RLENGTH)
    sub(/^[^"]*"/, "", rest); sub(/"$/, "", rest)
    return rest
  }'

# cases FILE...: "STATUS SUITE.NAME: message" for each GoogleTest case; STATUS passed, failed or skipped.
cases() {
  awk "$xml_attribute"'
    function flush() { if (name != "") print status, name ": " message; name = "" }
    /<testcase / {
      flush()
      name = attribute("classname") "." attribute("name")
      message = ""
      status = attribute("result") == "skipped" || attribute("status") == "notrun" ? "skipped" : "passed"
    }
    /<(failure|skipped) / {
      if (message == "") { message = attribute("message"); gsub(/&#x0A;/, " ", message); gsub(/&quot;/, "\"", message) }
    }
    /<failure / { status = "failed" }
    END { flush() }
  ' "$@" /dev/null
}

# fault_cases FILE: "NAME WORDS" of each case that failed and whose guest ended in a triple fault, or its kernel said how it died.
fault_cases() {
  awk "$xml_attribute"'
    /<testcase / { name = attribute("classname") "." attribute("name") }
    /<property name="guest_fault"/ { print name " " attribute("value") }
  ' "$1"
}

# programs_of CTEST_XML: "STATUS NAME" of each test program that ctest ran.
programs_of() {
  sed -nE 's/.*<testcase name="([^"]*)".* status="([^"]*)".*/\2 \1/p' "$1"
}

# collect DIR...: every case of the folders. A program that failed without saying which case did (it
# crashed, or leaked at its end), or that is no GoogleTest, counts as one case itself.
collect() {
  local dir status name xml
  for dir; do
    for xml in "$dir"/*.xml; do
      case $xml in */ctest.xml | */\*.xml) continue ;; esac
      if [ -e "$dir/retried" ]; then
        cases "$xml" | grep -vF -f <(sed 's/\([^ ]*\).*/ \1:/' "$dir/retried") || true
      else
        cases "$xml"
      fi
    done
    if [ -e "$dir/retried" ]; then
      cases "$dir"/retry/*.xml
      sed 's/^/retried /' "$dir/retried"
    fi
    [ -e "$dir/ctest.xml" ] || continue
    while read -r status name; do
      xml=$dir/$name.xml
      if [ "$status" = fail ] && ! { [ -e "$xml" ] && grep -q '<failure' "$xml"; }; then
        echo "failed $name: the program failed as a whole"
      elif [ ! -e "$xml" ] && [ "$status" = run ]; then
        echo "passed $name: "
      elif [ ! -e "$xml" ] && [ "$status" != fail ]; then
        echo "skipped $name: not run by ctest"
      fi
    done < <(programs_of "$dir/ctest.xml")
  done
}

# summary FILE: from collected lines, names what was skipped and what failed, then the one line that
# counts. Fails when a test failed or none ran.
summary() {
  local passed failed skipped
  passed=$(grep -c '^passed ' "$1" || true)
  failed=$(grep -c '^failed ' "$1" || true)
  skipped=$(grep -c '^skipped ' "$1" || true)
  grep '^retried ' "$1" | sed 's/$/: so its guest died in the test host (docs\/adr\/0006)/' || true
  grep '^skipped ' "$1" | sort -u || true
  grep '^failed ' "$1" || true
  if [ "$skipped" = 0 ]; then
    echo "$passed passed, $failed failed"
  else
    echo "$passed passed, $failed failed, $skipped skipped"
  fi
  [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}
