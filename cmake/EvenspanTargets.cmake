# How a folder of sources becomes a library, a program or a precompiled header.

# evenspan_sources(<result> <pattern>...): the files of the patterns, looked for again at every build.
macro(evenspan_sources result)
  file(GLOB_RECURSE ${result} CONFIGURE_DEPENDS ${ARGN})
endmacro()

# evenspan_use_pch(<target> <name>): compiles the target with cmake/pch/<name>.h, built once for all its users. Where
# sources are compiled many at a time (CMAKE_UNITY_BUILD), reading their headers once is faster than a precompiled one.
function(evenspan_use_pch target name)
  if(CMAKE_UNITY_BUILD)
    return()
  endif()
  if(NOT TARGET evenspan_pch_${name})
    set(source ${PROJECT_BINARY_DIR}/pch_${name}.cc)
    file(CONFIGURE OUTPUT ${source} CONTENT "// Owns the precompiled header ${name}.h.\n")
    add_library(evenspan_pch_${name} OBJECT ${source})
    target_link_libraries(evenspan_pch_${name} PRIVATE evenspan_torch)
    target_precompile_headers(evenspan_pch_${name} PRIVATE ${PROJECT_SOURCE_DIR}/cmake/pch/${name}.h)
  endif()
  target_precompile_headers(${target} REUSE_FROM evenspan_pch_${name})
endfunction()

# evenspan_library(<layer> [WHOLE] LINK <target>... [WITHOUT <source>...] [PCH <name>]): evenspan_<layer> from
# src/<layer>/. An empty folder gives a target without code, so that what links it need not ask. WHOLE keeps the objects
# that nothing calls by name; WITHOUT leaves sources to another target.
function(evenspan_library layer)
  cmake_parse_arguments(arg "WHOLE" "PCH" "LINK;WITHOUT" ${ARGN})
  set(target evenspan_${layer})
  evenspan_sources(sources ${PROJECT_SOURCE_DIR}/src/${layer}/*.cc)
  if(arg_WITHOUT)
    list(REMOVE_ITEM sources ${arg_WITHOUT})
  endif()
  if(sources)
    add_library(${target} STATIC ${sources})
    target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/include PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(${target} PUBLIC ${arg_LINK})
    if(arg_PCH)
      evenspan_use_pch(${target} ${arg_PCH})
    endif()
    if(arg_WHOLE)
      # As an option it comes once and before the library itself, which then has nothing left to add.
      target_link_options(${target} INTERFACE LINKER:--whole-archive,$<TARGET_FILE:${target}>,--no-whole-archive)
    endif()
  else()
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE ${PROJECT_SOURCE_DIR}/include)
    target_link_libraries(${target} INTERFACE ${arg_LINK})
  endif()
endfunction()

# evenspan_finish(<target>): what every program and module needs.
function(evenspan_finish target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${target} PRIVATE EVENSPAN_VERSION="${PROJECT_VERSION}")
endfunction()

# evenspan_name_source_folder(<source>...): tells those sources that read files of this tree where it lies. They say
# EVENSPAN_SOURCE_DIR, or include bench/lengths.h, which does.
function(evenspan_name_source_folder)
  foreach(source ${ARGN})
    file(STRINGS ${source} readers REGEX "EVENSPAN_SOURCE_DIR|lengths\\.h\"")
    if(readers)
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_DEFINITIONS "EVENSPAN_SOURCE_DIR=\"${PROJECT_SOURCE_DIR}\"")
    endif()
  endforeach()
endfunction()
