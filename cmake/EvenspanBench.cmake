# bench/<layer>_*.cc becomes evenspan_<layer>_bench.
foreach(layer plan simulate run)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/${layer}_*.cc)
  if(sources AND TARGET evenspan_${layer})
    evenspan_find_edges("the benchmark evenspan_${layer}_bench" found benchmark)
    if(found)
      add_executable(evenspan_${layer}_bench ${sources})
      set_target_properties(evenspan_${layer}_bench PROPERTIES UNITY_BUILD OFF)  # each file registers its own
      target_link_libraries(evenspan_${layer}_bench PRIVATE evenspan_${layer} edge_benchmark)
      evenspan_finish(evenspan_${layer}_bench)
      evenspan_name_source_folder(${sources})
    endif()
  endif()
endforeach()

# bench/batch/<name>.cc becomes evenspan_batch_<name>: programs that print tables, of what is counted and not timed.
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/batch/*.cc)
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  add_executable(evenspan_batch_${name} ${source})
  target_link_libraries(evenspan_batch_${name} PRIVATE evenspan_highs)
  target_compile_definitions(evenspan_batch_${name} PRIVATE EVENSPAN_HIGHS="${EVENSPAN_HIGHS}")
  evenspan_finish(evenspan_batch_${name})
endforeach()
if(TARGET evenspan_batch_oracle_report)
  target_sources(evenspan_batch_oracle_report PRIVATE ${PROJECT_SOURCE_DIR}/tests/batch/oracle.cc)
endif()

# bench/peers/kernel/ becomes the Python module evenspan_peers_kernel in build/bench/: what the peers compute with. It
# takes the kernels alone from evenspan_run, whose operators the package's own module registers.
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/peers/kernel/*.cc)
if(sources AND TARGET _evenspan)
  add_library(evenspan_peers_kernel MODULE ${sources})
  add_dependencies(evenspan_peers_kernel evenspan_run)
  target_link_libraries(evenspan_peers_kernel PRIVATE
    $<TARGET_FILE:evenspan_run> evenspan_plan evenspan_torch ${TORCH_DIR}/lib/libtorch_python.so)
  target_include_directories(evenspan_peers_kernel SYSTEM PRIVATE ${PYTHON_INCLUDE})
  target_compile_definitions(evenspan_peers_kernel PRIVATE TORCH_EXTENSION_NAME=evenspan_peers_kernel)
  set_target_properties(evenspan_peers_kernel PROPERTIES PREFIX "" SUFFIX ${PYTHON_SUFFIX}
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench CXX_VISIBILITY_PRESET hidden)
  evenspan_finish(evenspan_peers_kernel)
endif()
