// Threads of a block as fibers of one host thread: a switch costs nanoseconds, a thousand times less than ucontext's
// system calls, and a block of 256 threads switches tens of thousands of times.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

class Fiber {
 public:
  // Prepares to run `function` from its beginning.
  void start(void (*function)()) {
    if (!stack_) stack_.reset(new char[kStackBytes]);
    function_ = function;
    has_ended_ = false;
    prepare();
  }
  // Runs it to its next pause, or to its end.
  void resume() {
    current() = this;
    enter();
  }
  bool has_ended() const { return has_ended_; }
  // Back to who resumed the running fiber.
  static void pause() { current()->leave(); }

 private:
  static constexpr size_t kStackBytes = 128 * 1024;

  static Fiber*& current() {
    static Fiber* running = nullptr;
    return running;
  }
  static void main() {
    Fiber* const me = current();
    me->function_();
    me->has_ended_ = true;
    me->leave();
  }

#if defined(__x86_64__)
  // Saves the registers that a call keeps, swaps stacks, and returns on the other one.
  [[gnu::naked, gnu::noinline]] static void swap(void** /*save*/, void* /*load*/) {
    asm volatile(
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
        "ret\n");
  }
  void prepare() {
    const uintptr_t end = reinterpret_cast<uintptr_t>(stack_.get()) + kStackBytes;
    auto* top = reinterpret_cast<uintptr_t*>(end & ~uintptr_t{15});
    *--top = 0;  // a return address that is never used; keeps the stack aligned as after a call
    *--top = reinterpret_cast<uintptr_t>(&Fiber::main);
    for (int i = 0; i < 6; ++i) *--top = 0;
    inside_ = top;
  }
  void enter() { swap(&outside_, inside_); }
  void leave() { swap(&inside_, outside_); }
  void* inside_ = nullptr;
  void* outside_ = nullptr;
#else
  void prepare() {
    getcontext(&inside_);
    inside_.uc_stack.ss_sp = stack_.get();
    inside_.uc_stack.ss_size = kStackBytes;
    inside_.uc_link = nullptr;
    makecontext(&inside_, &Fiber::main, 0);
  }
  void enter() { swapcontext(&outside_, &inside_); }
  void leave() { swapcontext(&inside_, &outside_); }
  ucontext_t inside_, outside_;
#endif
  std::unique_ptr<char[]> stack_;
  void (*function_)() = nullptr;
  bool has_ended_ = true;
};
