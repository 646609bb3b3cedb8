# The four ways a folder adds to the build. Everything else (flags, sanitizers) is set once, at the root.

# weir_library(name SRCS a.c b.c [LIBS x y]): a static library; its headers are included as "folder/file.h".
function(weir_library name)
  cmake_parse_arguments(A "" "" "SRCS;LIBS" ${ARGN})
  add_library(${name} STATIC ${A_SRCS})
  target_link_libraries(${name} PUBLIC ${A_LIBS})
endfunction()

# weir_program(name SRCS main.c [LIBS x y]): a binary in <build>/bin.
function(weir_program name)
  cmake_parse_arguments(A "" "" "SRCS;LIBS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_LIBS} weir_heap)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# weir_test(name SRCS test_x.c [LIBS x y] [LABELS unit]): a cmocka program run by ctest; exit code 77 is a visible skip.
function(weir_test name)
  cmake_parse_arguments(A "" "" "SRCS;LIBS;LABELS;ARGS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE ${A_LIBS} PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name} ${A_ARGS} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" SKIP_RETURN_CODE 77 TIMEOUT 300)
  if(WEIR_SANITIZE STREQUAL "thread") # the gRPC core is not built with it: what it does unseen is not judged
    set_tests_properties(${name} PROPERTIES ENVIRONMENT TSAN_OPTIONS=ignore_noninstrumented_modules=1)
  endif()
endfunction()

# weir_fuzz(name SRCS fuzz_x.c [LIBS x y]): with the fuzz preset a libFuzzer program in <build>/fuzz; otherwise a
# test that replays the corpus in the source folder.
function(weir_fuzz name)
  cmake_parse_arguments(A "" "" "SRCS;LIBS" ${ARGN})
  if(WEIR_FUZZ)
    add_executable(fuzz_${name} ${A_SRCS})
    target_link_libraries(fuzz_${name} PRIVATE ${A_LIBS} -fsanitize=fuzzer)
    set_target_properties(fuzz_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  else()
    add_executable(fuzz_${name} ${A_SRCS} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.c)
    target_link_libraries(fuzz_${name} PRIVATE ${A_LIBS})
    add_test(NAME replay_${name} COMMAND fuzz_${name} ${CMAKE_CURRENT_SOURCE_DIR}/corpus)
    set_tests_properties(replay_${name} PROPERTIES LABELS fuzz TIMEOUT 300)
  endif()
endfunction()
