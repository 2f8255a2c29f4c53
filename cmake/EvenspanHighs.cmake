# EVENSPAN_HIGHS: where the interpreter's package highsbox has, or will have, the library of HiGHS, which is opened when a
# planner needs it; empty where that is unknown. A wheel may be built in an environment that is gone afterwards, so it
# gets a path that is there only; the program looks beside itself too.
execute_process(
  COMMAND ${EVENSPAN_INTERPRETER} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
  OUTPUT_VARIABLE EVENSPAN_HIGHS ERROR_QUIET RESULT_VARIABLE result OUTPUT_STRIP_TRAILING_WHITESPACE)
if(result EQUAL 0)
  string(APPEND EVENSPAN_HIGHS /highsbox/highs_dist/lib/libhighs.so)
else()
  set(EVENSPAN_HIGHS "")
endif()
if(DEFINED SKBUILD AND NOT EXISTS "${EVENSPAN_HIGHS}")
  set(EVENSPAN_HIGHS "")
endif()
