//! Temporary: a hub for trying by hand.
fn main() {
    let rt = tokio::runtime::Runtime::new().unwrap();
    rt.block_on(async {
        let mut args = std::env::args().skip(1);
        let mut c = pytheas_hub::Config::new(args.next().unwrap());
        c.listen = args.next().unwrap().parse().unwrap();
        c.poll_interval = std::time::Duration::from_secs(2);
        let hub = pytheas_hub::Hub::start(c).await.unwrap();
        println!("{} {:?}", hub.url(), hub.first_token());
        hub.run().await;
    });
}
