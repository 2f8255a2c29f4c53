# Language, warnings, sanitizers and the compiler cache: everything that holds for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_package(Threads REQUIRED)
# -fPIC for programs too: a precompiled header serves only units that are compiled alike.
add_compile_options(-Wall -Wextra -fPIC)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # Optimised, GCC warns of the inside of its own library: of `"text" + std::string` (GCC bug 105651), and of moved
  # variants. The analyser of clang-tidy looks for uninitialised values instead.
  add_compile_options(-Wno-restrict -Wno-maybe-uninitialized)
endif()
if(EVENSPAN_WERROR)
  add_compile_options(-Werror)
endif()
if(EVENSPAN_SANITIZE)
  # vptr needs the type information of torch's classes, which its libraries do not export.
  add_compile_options(-fsanitize=${EVENSPAN_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${EVENSPAN_SANITIZE})
  if(EVENSPAN_SANITIZE MATCHES undefined)
    add_compile_options(-fno-sanitize=vptr -fno-sanitize-recover=undefined)
  endif()
endif()

find_program(EVENSPAN_CCACHE ccache)
if(EVENSPAN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without these liberties ccache caches nothing that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${EVENSPAN_CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-fpch-preprocess)
  endif()
endif()
