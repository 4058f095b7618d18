//! Hands libtorch's folder to every crate above, so that tests and binaries find it without a variable set.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys exports its library folder");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo::metadata=LIB={lib}");
}
