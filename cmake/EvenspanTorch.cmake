# evenspan_torch: the torch of an interpreter, as an imported target. torch's own CMake package is not used: with a
# CUDA build of torch it demands the CUDA toolkit, and nothing here compiles CUDA.
execute_process(
  COMMAND ${EVENSPAN_INTERPRETER} ${CMAKE_CURRENT_LIST_DIR}/torch_probe.py
  OUTPUT_VARIABLE probe ERROR_VARIABLE probe_error RESULT_VARIABLE probe_result OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT probe_result EQUAL 0)
  message(FATAL_ERROR "evenspan: ${EVENSPAN_INTERPRETER} cannot import torch; give an interpreter that can with "
                      "-DEVENSPAN_PYTHON=/path/to/python3, or build without torch: cmake --preset plan\n${probe_error}")
endif()
list(POP_FRONT probe TORCH_VERSION TORCH_DIR TORCH_CXX11_ABI PYTHON_INCLUDE PYTHON_SUFFIX)
if(TORCH_VERSION VERSION_LESS 2.11 OR TORCH_VERSION VERSION_GREATER_EQUAL 2.14)
  message(FATAL_ERROR "evenspan: ${EVENSPAN_INTERPRETER} has torch ${TORCH_VERSION}; 2.11 to 2.13 are supported, "
                      "give another interpreter with -DEVENSPAN_PYTHON=/path/to/python3")
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${TORCH_DIR}/version.py)
message(STATUS "evenspan: torch ${TORCH_VERSION} in ${TORCH_DIR}")

add_library(evenspan_torch INTERFACE IMPORTED)
target_include_directories(evenspan_torch INTERFACE ${TORCH_DIR}/include ${TORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(evenspan_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=${TORCH_CXX11_ABI})
target_link_libraries(evenspan_torch INTERFACE
  ${TORCH_DIR}/lib/libtorch.so ${TORCH_DIR}/lib/libtorch_cpu.so ${TORCH_DIR}/lib/libc10.so Threads::Threads)

# CUDA operators register themselves when their library is loaded, though no symbol of it is used here.
if(EXISTS ${TORCH_DIR}/lib/libtorch_cuda.so)
  target_link_libraries(evenspan_torch INTERFACE
    -Wl,--no-as-needed,${TORCH_DIR}/lib/libtorch_cuda.so,${TORCH_DIR}/lib/libc10_cuda.so,--as-needed
    -Wl,--allow-shlib-undefined)
endif()

# at::parallel_for runs on one thread in code compiled without OpenMP. The runtime must be the one that torch loads:
# two of them in a process would each have a pool of threads.
file(GLOB TORCH_OPENMP ${TORCH_DIR}/lib/libgomp*.so* ${TORCH_DIR}/../torch.libs/libgomp*.so*)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(APPEND TORCH_OPENMP gomp)
  list(GET TORCH_OPENMP 0 TORCH_OPENMP)
  target_compile_options(evenspan_torch INTERFACE -fopenmp)
  target_link_libraries(evenspan_torch INTERFACE ${TORCH_OPENMP})
endif()
