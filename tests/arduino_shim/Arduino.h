/* The part of an Arduino core that firmware/arduino uses, written by hand: its interface for any
 * compiler, and for a program of this computer an implementation in core.cpp. Time is simulated: it
 * goes on by one step whenever a clock is read, and by delay(). */
#ifndef ARDUINO_SHIM_H_
#define ARDUINO_SHIM_H_

#include <stddef.h>
#include <stdint.h>

extern "C" {
void setup(void);
void loop(void);
unsigned long micros(void);
unsigned long millis(void);
void delay(unsigned long ms);
}

class SerialPort {
  public:
    void begin(unsigned long baud);
    int read(void);
    size_t write(const uint8_t *bytes, size_t count);
    void flush(void);
};

extern SerialPort Serial;

#ifndef __arm__
/* A register of the processor at its address. */
class Register {
  public:
    explicit Register(uint32_t at) : address(at) {
    }
    operator uint32_t() const;
    void operator=(uint32_t value) const;

  private:
    uint32_t address;
};
#define EC_REGISTER(address) Register(address)
#endif

#endif
