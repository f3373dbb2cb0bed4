// LibreOffice behind a small C interface, because UNO has none. It decides nothing: what to load, with which filter and
// properties, and what an answer means is Rust's business (office.rs, child.rs). Compiled by build.rs into a shared
// object that the zygote alone opens; the worker never maps LibreOffice.
#define LOK_USE_UNSTABLE_API
#include <LibreOfficeKit/LibreOfficeKitInit.h>
#include <com/sun/star/beans/PropertyValue.hpp>
#include <com/sun/star/frame/XComponentLoader.hpp>
#include <com/sun/star/frame/XStorable.hpp>
#include <com/sun/star/lang/XMultiComponentFactory.hpp>
#include <com/sun/star/lang/XServiceInfo.hpp>
#include <com/sun/star/lang/XSingleServiceFactory.hpp>
#include <com/sun/star/reflection/InvocationTargetException.hpp>
#include <com/sun/star/script/XInvocation.hpp>
#include <com/sun/star/script/XTypeConverter.hpp>
#include <com/sun/star/task/ErrorCodeIOException.hpp>
#include <com/sun/star/task/ErrorCodeRequest.hpp>
#include <com/sun/star/task/XInteractionAbort.hpp>
#include <com/sun/star/task/XInteractionHandler.hpp>
#include <com/sun/star/uno/XComponentContext.hpp>
#include <com/sun/star/util/XCloseable.hpp>
#include <cppuhelper/exc_hlp.hxx>
#include <cppuhelper/implbase1.hxx>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

using namespace com::sun::star;
using uno::Any;
using uno::Reference;
using uno::Sequence;

// The same layouts are in office.rs and office/value.rs.
extern "C" {
enum platen_kind : int32_t {
    PLATEN_NOTHING = 0,
    PLATEN_BOOLEAN = 1,
    PLATEN_SHORT = 2,
    PLATEN_LONG = 3,
    PLATEN_HYPER = 4,
    PLATEN_TEXT = 5,
    PLATEN_OBJECT = 6,
    PLATEN_LIST = 7,
};
// One typed value: a property with its name, an argument or an answer without. `text` is UTF-8 of `length` bytes; a list
// has `length` values, which follow it. Who gets an answer that is an object owns it.
struct platen_value {
    const char* name;
    const char* text;
    size_t length;
    struct platen_object* object;
    int64_t number;
    platen_kind kind;
};
// What a call answers, value by value. Must not throw.
struct platen_answer {
    void (*take)(void* data, const platen_value* value);
    void* data;
};
// What went wrong: the exception's type name, LibreOffice's error code where it has one, and the type names of the
// questions that the interaction handler was asked, each ended by a line feed. Never an exception's text: it may hold
// the document's.
struct platen_report {
    uint32_t error_code;
    char exception[128];
    char asked[512];
};
}

// Any object of LibreOffice's, or a structure, which has members to read.
struct platen_object {
    Any value;
    // Made at the first use: it knows everything that the object has, by name.
    Reference<script::XInvocation> members;
};

namespace {
std::string g_program;

// The address of a private symbol, or null.
void* symbol(const char* library, const char* name) {
    void* handle = dlopen((g_program + "/" + library).c_str(), RTLD_LAZY);
    return handle ? dlsym(handle, name) : nullptr;
}

// In 25.2 this returns a reference; in 7.4 it returned an object. The mangled name does not tell, `start` checks the version.
using Context = const Reference<uno::XComponentContext>& (*)();
using SetActive = void (*)(bool);
using GetModule = void* (*)(int);
using ClearAuthors = void (*)(void*);
Context g_context;
SetActive g_set_active;
GetModule g_get_module;
ClearAuthors g_clear_authors;

template <typename Function>
bool resolve(Function& function, const char* library, const char* name, char* error, size_t error_size) {
    function = reinterpret_cast<Function>(symbol(library, name));
    if (!function) snprintf(error, error_size, "%s has no symbol %s", library, name);
    return function != nullptr;
}

template <size_t Size>
void append(char (&into)[Size], const rtl::OUString& text, const char* end) {
    const rtl::OString bytes = rtl::OUStringToOString(text, RTL_TEXTENCODING_UTF8);
    const size_t used = strlen(into);
    snprintf(into + used, Size - used, "%s%s", bytes.getStr(), end);
}

// LibreOffice asks (a password, a filter, "repair?"): the answer is always no, and what was asked is kept.
// The document may keep the handler longer than the load lasts, so the report is not the handler's.
platen_report* g_loading;
struct Refuse : cppu::WeakImplHelper1<task::XInteractionHandler> {
    void SAL_CALL handle(const Reference<task::XInteractionRequest>& request) override {
        if (g_loading) {
            append(g_loading->asked, request->getRequest().getValueTypeName(), "\n");
            // No question: LibreOffice says why it does not load.
            task::ErrorCodeRequest said;
            if (request->getRequest() >>= said) g_loading->error_code = static_cast<uint32_t>(said.ErrCode);
        }
        for (const auto& way : request->getContinuations())
            if (Reference<task::XInteractionAbort> abort{way, uno::UNO_QUERY}; abort.is()) return abort->select();
    }
};

// The next value, which may be a list and what follows it.
Any value_of(const platen_value*& next) {
    const platen_value& value = *next++;
    switch (value.kind) {
        case PLATEN_BOOLEAN: return Any(value.number != 0);
        case PLATEN_SHORT: return Any(static_cast<sal_Int16>(value.number));
        case PLATEN_LONG: return Any(static_cast<sal_Int32>(value.number));
        case PLATEN_HYPER: return Any(static_cast<sal_Int64>(value.number));
        case PLATEN_TEXT: return Any(rtl::OUString(value.text, static_cast<sal_Int32>(value.length), RTL_TEXTENCODING_UTF8));
        case PLATEN_OBJECT: return value.object->value;
        case PLATEN_LIST: {
            std::vector<Any> list;
            for (size_t i = 0; i < value.length; i++) list.push_back(value_of(next));
            return Any(Sequence<Any>(list.data(), static_cast<sal_Int32>(list.size())));
        }
        case PLATEN_NOTHING: break;
    }
    return Any();
}

std::vector<beans::PropertyValue> properties_of(const platen_value* properties, size_t count) {
    std::vector<beans::PropertyValue> values;
    for (const auto* next = properties; next != properties + count;) {
        beans::PropertyValue property;
        property.Name = rtl::OUString::createFromAscii(next->name);
        property.Value = value_of(next);
        values.push_back(property);
    }
    return values;
}

Sequence<beans::PropertyValue> sequence_of(const std::vector<beans::PropertyValue>& values) {
    return Sequence<beans::PropertyValue>(values.data(), static_cast<sal_Int32>(values.size()));
}

void add(std::vector<beans::PropertyValue>& values, const char* name, const Any& value) {
    beans::PropertyValue property;
    property.Name = rtl::OUString::createFromAscii(name);
    property.Value = value;
    values.push_back(property);
}

// Without an allocation: memory may be what is missing.
void name_exception(platen_report* report, const char* name) noexcept {
    snprintf(report->exception, sizeof report->exception, "%s", name);
}

// Runs what may throw anything at all. Nothing passes the C interface but a report: telling the exception's name
// allocates, so it may throw again.
template <typename Body>
bool guarded(platen_report* report, Body body) noexcept {
    try {
        try {
            return body();
        } catch (const task::ErrorCodeIOException& error) {
            report->error_code = static_cast<uint32_t>(error.ErrCode);
            append(report->exception, cppu::getCaughtException().getValueTypeName(), "");
        } catch (const reflection::InvocationTargetException& error) {
            append(report->exception, error.TargetException.getValueTypeName(), "");
        } catch (const uno::Exception&) {
            append(report->exception, cppu::getCaughtException().getValueTypeName(), "");
        }
    } catch (const std::bad_alloc&) {
        name_exception(report, "std.bad_alloc");
    } catch (...) {
        name_exception(report, "unknown");
    }
    return false;
}

Reference<uno::XInterface> service(const char* name) {
    const auto context = g_context();
    return context->getServiceManager()->createInstanceWithContext(rtl::OUString::createFromAscii(name), context);
}

const Reference<script::XInvocation>& members_of(platen_object* object) {
    // Kept for ever: its tables are what a fork inherits warm.
    static const auto* factory = new Reference<lang::XSingleServiceFactory>(service("com.sun.star.script.Invocation"), uno::UNO_QUERY_THROW);
    if (!object->members.is())
        object->members.set((*factory)->createInstanceWithArguments(Sequence<Any>(&object->value, 1)), uno::UNO_QUERY_THROW);
    return object->members;
}

void answer_text(const platen_answer& answer, const rtl::OUString& text) {
    const rtl::OString bytes = rtl::OUStringToOString(text, RTL_TEXTENCODING_UTF8);
    platen_value value{};
    value.kind = PLATEN_TEXT;
    value.text = bytes.getStr();
    value.length = static_cast<size_t>(bytes.getLength());
    answer.take(answer.data, &value);
}

void answer_with(const platen_answer& answer, const Any& any) {
    platen_value value{};
    switch (any.getValueTypeClass()) {
        case uno::TypeClass_STRING: return answer_text(answer, *static_cast<const rtl::OUString*>(any.getValue()));
        case uno::TypeClass_CHAR: return answer_text(answer, rtl::OUString(*static_cast<const sal_Unicode*>(any.getValue())));
        case uno::TypeClass_TYPE: return answer_text(answer, static_cast<const uno::Type*>(any.getValue())->getTypeName());
        case uno::TypeClass_BOOLEAN:
            value.kind = PLATEN_BOOLEAN;
            value.number = *static_cast<const sal_Bool*>(any.getValue()) ? 1 : 0;
            break;
        case uno::TypeClass_ENUM:
            value.kind = PLATEN_HYPER;
            value.number = *static_cast<const sal_Int32*>(any.getValue());
            break;
        case uno::TypeClass_INTERFACE:
            if (!*static_cast<uno::XInterface* const*>(any.getValue())) break;
            [[fallthrough]];
        case uno::TypeClass_STRUCT:
        case uno::TypeClass_EXCEPTION:
            value.kind = PLATEN_OBJECT;
            value.object = new platen_object{any, {}};
            break;
        case uno::TypeClass_SEQUENCE: {
            static const auto* converter = new Reference<script::XTypeConverter>(service("com.sun.star.script.Converter"), uno::UNO_QUERY_THROW);
            const auto list = (*converter)->convertTo(any, cppu::UnoType<Sequence<Any>>::get()).get<Sequence<Any>>();
            value.kind = PLATEN_LIST;
            value.length = static_cast<size_t>(list.getLength());
            answer.take(answer.data, &value);
            for (const Any& element : list) answer_with(answer, element);
            return;
        }
        default: {
            sal_Int64 number = 0;
            if (any >>= number) value.kind = PLATEN_HYPER;
            value.number = number;
        }
    }
    answer.take(answer.data, &value);
}

void (*g_out_of_memory)();
void out_of_memory() {
    g_out_of_memory();
    throw std::bad_alloc();
}
}  // namespace

extern "C" {
#define PLATEN_EXPORT __attribute__((visibility("default")))

// Starts LibreOffice and enters its main loop, which calls `poll` and never comes back. Returns only on failure, with a
// sentence in `error`. `accept_version` gets LibreOffice's own JSON about its version before a private symbol is called.
PLATEN_EXPORT void platen_office_start(const char* program, const char* profile_url, bool (*accept_version)(void*, const char*),
                                       int (*poll)(void*, int), void (*wake)(void*), void (*memory_exhausted)(), void* data,
                                       char* error, size_t error_size) noexcept {
    try {
        g_program = program;
        LibreOfficeKit* kit = lok_init_2(program, profile_url);
        if (!kit) {
            snprintf(error, error_size, "LibreOffice at %s did not start", program);
            return;
        }
        char* version = kit->pClass->getVersionInfo(kit);
        const bool accepted = accept_version(data, version ? version : "");
        free(version);
        if (!accepted) {
            snprintf(error, error_size, "the version of LibreOffice at %s is another one", program);
            return;
        }
        if (!resolve(g_context, "libmergedlo.so", "_ZN10comphelper26getProcessComponentContextEv", error, error_size) ||
            !resolve(g_set_active, "libmergedlo.so", "_ZN10comphelper14LibreOfficeKit9setActiveEb", error, error_size) ||
            !resolve(g_get_module, "libmergedlo.so", "_ZN14SfxApplication9GetModuleE14SfxToolsModule", error, error_size) ||
            !resolve(g_clear_authors, "libswlo.so", "_ZN8SwModule19ClearRedlineAuthorsEv", error, error_size))
            return;
        g_out_of_memory = memory_exhausted;
        std::set_new_handler(out_of_memory);
        kit->pClass->registerCallback(kit, [](int, const char*, void*) {}, nullptr);
        // Off before the loop starts: later, dates get the wrong format and columns turn into ###.
        g_set_active(false);
        kit->pClass->runLoop(kit, poll, wake, data);
        snprintf(error, error_size, "the main loop of LibreOffice ended");
    } catch (...) {
        snprintf(error, error_size, "LibreOffice at %s did not start: it threw an exception", program);
    }
}

// Loads a document without a window. Null when it does not load; the report says what is known.
PLATEN_EXPORT platen_object* platen_office_load(const char* url, const platen_value* properties, size_t count, platen_report* report) noexcept {
    platen_object* loaded = nullptr;
    g_loading = report;
    guarded(report, [&] {
        const Reference<frame::XComponentLoader> desktop(service("com.sun.star.frame.Desktop"), uno::UNO_QUERY_THROW);
        auto values = properties_of(properties, count);
        add(values, "InteractionHandler", Any(Reference<task::XInteractionHandler>(new Refuse)));
        const auto document = desktop->loadComponentFromURL(rtl::OUString::fromUtf8(url), "_blank", 0, sequence_of(values));
        if (document.is()) loaded = new platen_object{Any(document), {}};
        return loaded != nullptr;
    });
    g_loading = nullptr;
    return loaded;
}

// A new object of LibreOffice's that belongs to no document. Null when there is no such service.
PLATEN_EXPORT platen_object* platen_office_service(const char* name, platen_report* report) noexcept {
    platen_object* made = nullptr;
    guarded(report, [&] {
        const Reference<uno::XInterface> object = service(name);
        if (object.is()) made = new platen_object{Any(object), {}};
        return made != nullptr;
    });
    return made;
}

// Whether an object offers a service, such as the one that tells what kind of document it is.
PLATEN_EXPORT bool platen_object_supports(platen_object* object, const char* service, platen_report* report) noexcept {
    return guarded(report, [&] {
        const Reference<lang::XServiceInfo> kind(object->value, uno::UNO_QUERY_THROW);
        return static_cast<bool>(kind->supportsService(rtl::OUString::createFromAscii(service)));
    });
}

// Stores a loaded document. `filter_data` are the export filter's options; with none, no FilterData is passed at all.
PLATEN_EXPORT bool platen_office_store(platen_object* document, const char* url, const platen_value* properties, size_t count,
                                       const platen_value* filter_data, size_t filter_data_count, platen_report* report) noexcept {
    return guarded(report, [&] {
        const Reference<frame::XStorable> storable(document->value, uno::UNO_QUERY_THROW);
        auto values = properties_of(properties, count);
        if (filter_data_count > 0) add(values, "FilterData", Any(sequence_of(properties_of(filter_data, filter_data_count))));
        storable->storeToURL(rtl::OUString::fromUtf8(url), sequence_of(values));
        return true;
    });
}

// Closes a loaded document, whose handle stays its owner's to release.
PLATEN_EXPORT bool platen_office_close(platen_object* document, platen_report* report) noexcept {
    return guarded(report, [&] {
        Reference<util::XCloseable>(document->value, uno::UNO_QUERY_THROW)->close(true);
        return true;
    });
}

// Reads a property, an attribute, or a structure's member.
PLATEN_EXPORT bool platen_object_get(platen_object* object, const char* name, platen_answer answer, platen_report* report) noexcept {
    return guarded(report, [&] {
        answer_with(answer, members_of(object)->getValue(rtl::OUString::createFromAscii(name)));
        return true;
    });
}

// Sets a property or an attribute; LibreOffice converts the value to its type, or throws.
PLATEN_EXPORT bool platen_object_set(platen_object* object, const platen_value* property, platen_report* report) noexcept {
    return guarded(report, [&] {
        const auto* next = property;
        members_of(object)->setValue(rtl::OUString::createFromAscii(property->name), value_of(next));
        return true;
    });
}

// Calls a method of any of its interfaces.
PLATEN_EXPORT bool platen_object_call(platen_object* object, const char* method, const platen_value* arguments, size_t count,
                                      platen_answer answer, platen_report* report) noexcept {
    return guarded(report, [&] {
        std::vector<Any> values;
        for (const auto* next = arguments; next != arguments + count;) values.push_back(value_of(next));
        Sequence<sal_Int16> out_indices;
        Sequence<Any> out;
        answer_with(answer, members_of(object)->invoke(rtl::OUString::createFromAscii(method),
                                                       Sequence<Any>(values.data(), static_cast<sal_Int32>(values.size())), out_indices, out));
        return true;
    });
}

// Lets an object go, which may run destructors of LibreOffice's.
PLATEN_EXPORT void platen_object_release(platen_object* object, platen_report* report) noexcept {
    guarded(report, [&] {
        delete object;
        return true;
    });
}

// Loading a document puts its author into a process-wide table that chooses the colours of tracked changes.
PLATEN_EXPORT bool platen_office_forget_authors(platen_report* report) noexcept {
    const int writer = 3;  // SfxToolsModule::Writer
    return guarded(report, [&] {
        if (void* module = g_get_module(writer)) g_clear_authors(module);
        return true;
    });
}
}
