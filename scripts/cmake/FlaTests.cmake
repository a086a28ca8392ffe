# Tests stand beside what they test: <folder>/tests/*_test.cpp, one executable per folder.
include(GoogleTest)

function(fla_tests name folder)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/tests/*_test.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${ARGN} GTest::gtest_main)
  fla_target_defaults(${name})
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)  # tests are compiled more often than they run
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 120)
endfunction()

add_library(fla_reference INTERFACE)
target_link_libraries(fla_reference INTERFACE fla_headers Eigen3::Eigen)

fla_tests(test_kernels kernels fla_kernels_emulated)
fla_tests(test_norm kernels/norm fla_kernels_emulated)
fla_tests(test_loss kernels/loss fla_kernels_emulated)
fla_tests(test_conv kernels/conv fla_kernels_emulated)
fla_tests(test_rotary kernels/rotary fla_kernels_emulated)
fla_tests(test_token_shift kernels/token_shift fla_kernels_emulated)
fla_tests(test_varlen kernels/varlen fla_kernels_emulated)
fla_tests(test_emulator kernels/emulator fla_emulator)
target_compile_options(test_emulator PRIVATE -fno-strict-aliasing)
fla_tests(test_reference reference fla_reference)
fla_tests(test_reports reports fla_reports)
fla_tests(test_harness harness fla_harness fla_device_emulator fla_harness)
target_compile_definitions(test_harness PRIVATE FLA_CHECK_PATH="$<TARGET_FILE:fla-check>")
add_dependencies(test_harness fla-check fla-check-emulator)

# The programs themselves, on whatever this machine has.
add_test(NAME self_test COMMAND fla-check --self-test)
add_test(NAME emulator_ci COMMAND fla-check --backend emulator --tier ci --out ${PROJECT_BINARY_DIR}/emulator_ci.json)
add_test(NAME reference_ci COMMAND fla-check --backend reference --tier ci --out ${PROJECT_BINARY_DIR}/reference_ci.json)
set_tests_properties(self_test emulator_ci reference_ci PROPERTIES TIMEOUT 600 RUN_SERIAL ON)

# The README's table is that of the committed results.
file(GLOB results CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/reports/results/h200/bench*.json)
add_test(NAME readme_table COMMAND fla-bench report ${results} --peers ${PROJECT_SOURCE_DIR}/reports/results/h200/peers.json
  --table ${PROJECT_SOURCE_DIR}/README.md --check)

# A user's program, outside this tree, against the installed package.
if(FLA_CUDA)
  add_test(NAME installed_package COMMAND ${CMAKE_COMMAND}
    -DBUILD=${PROJECT_BINARY_DIR} -DEXAMPLE=${PROJECT_SOURCE_DIR}/scripts/example -DARCHS=${FLA_CUDA_ARCHS}
    -P ${PROJECT_SOURCE_DIR}/scripts/cmake/TestInstalled.cmake)
  set_tests_properties(installed_package PROPERTIES TIMEOUT 300)
endif()
