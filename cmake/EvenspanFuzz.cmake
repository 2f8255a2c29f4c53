# evenspan_fuzz: what reads files, on damaged ones. Without torch, so that it runs under sanitizers and in little memory.
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*.cc)
evenspan_find_edges("the test program evenspan_fuzz" found zlib)
if(found AND TARGET evenspan_readers AND NOT EVENSPAN_SANITIZE MATCHES thread)
  add_executable(evenspan_fuzz ${sources} ${PROJECT_SOURCE_DIR}/src/cli/input.cc)
  target_include_directories(evenspan_fuzz PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(evenspan_fuzz PRIVATE evenspan_readers edge_zlib)
  evenspan_finish(evenspan_fuzz)
  # About a minute under sanitizers; in a release build as many in seconds, and in 1 GB.
  set(limits --iterations 20000)
  if(NOT EVENSPAN_SANITIZE)
    list(APPEND limits --memory 1000000000)
  endif()
  add_dependencies(evenspan_test_programs evenspan_fuzz)
  add_test(NAME evenspan_fuzz COMMAND evenspan_fuzz --corpus tests/fuzz/corpus ${limits}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(evenspan_fuzz PROPERTIES TIMEOUT 600)
endif()
